#!/bin/sh
# mm_buddy.h with each compiler, target, language and option.
exec "$(dirname "$0")/matrix" mm_buddy.h

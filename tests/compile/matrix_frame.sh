#!/bin/sh
# mm_frame.h with each compiler, target, language and option.
exec "$(dirname "$0")/matrix" mm_frame.h

#!/bin/sh
# mm_slab.h with each compiler, target, language and option.
exec "$(dirname "$0")/matrix" mm_slab.h

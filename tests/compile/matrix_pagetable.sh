#!/bin/sh
# mm_pagetable.h with each compiler, target, language and option.
exec "$(dirname "$0")/matrix" mm_pagetable.h

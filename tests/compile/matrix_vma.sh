#!/bin/sh
# mm_vma.h with each compiler, target, language and option.
exec "$(dirname "$0")/matrix" mm_vma.h

# Everything built goes under build/. `make help` lists the verbs.

GCC ?= gcc
CLANG ?= clang
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60

# T=TEXT limits `make test` to the programs and checks whose path contains TEXT
T ?=
# V=1 shows the commands
V ?=
Q := $(if $(V),,@)

headers := $(wildcard mm_*.h)
single := $(wildcard tests/unit/*.c tests/model/*.c tests/fault/*.c)
threaded := $(wildcard tests/stress/*.c)
scripts := $(sort $(wildcard tests/*/*.sh))
fuzzers := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/*.c))

# A variant is a compiler with flags; $(call programs,VARIANT,SOURCES) are what it builds.
programs = $(patsubst tests/%.c,build/test/$(1)/%,$(2))
plain := $(call programs,plain,$(single) $(threaded))
asan := $(call programs,asan,$(single))
tsan := $(call programs,tsan,$(threaded))
cov := $(call programs,cov,$(single) $(threaded))
sanitized := $(asan) $(tsan)

# the checks that take long go first
tests := $(tsan) $(scripts) $(asan) $(plain)
chosen := $(if $(T),$(foreach t,$(tests),$(if $(findstring $(T),$(t)),$(t))),$(tests))

test_flags := -std=gnu11 -D_GNU_SOURCE -g1 -Wall -Wextra -Werror -I. -Itests -pthread
sanitize := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
plain_cc = $(GCC) $(if $(filter tests/unit/%,$<),-O1,-O2) -DMM_DEBUG=0
# optimised where the run takes longer than the build
long := tests/unit/kernel_mm.c tests/unit/buddy_alloc.c tests/unit/buddy_lists.c \
    $(wildcard tests/model/buddy_*.c tests/model/pagetable_random*.c tests/model/slab_states*.c)
asan_cc = $(CLANG) $(if $(filter $(long),$<),-O1,-O0) -DMM_DEBUG=3 $(sanitize)
tsan_cc = $(CLANG) -O1 -DMM_DEBUG=1 -fsanitize=thread
cov_cc = $(GCC) -O0 -DMM_DEBUG=0 --coverage -DMM_TEST_COVERAGE

# builds with as many jobs as there are processors, unless -j said otherwise
build = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: help test test-programs cov fuzz check-core sync-core format lint clean
.DELETE_ON_ERROR:
.SUFFIXES:

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# `deps-GROUP` installs what that group of tools/deps.txt lacks.
deps-%:
	@tools/deps.sh build $* $(also)

deps-test: also := bench count boot

# what does not compile is a failed test, so that the others still run
test: | deps-test ## build and run the tests (T=TEXT: only paths with TEXT)
	@$(build) -k test-programs || echo "some tests do not build" >&2
	@tools/run-tests -j $(JOBS) $(chosen)

test-programs: $(filter build/%,$(chosen))
	@:

define variant
build/test/$(1)/%: tests/%.c Makefile | deps-test
	@mkdir -p $$(@D)
	@echo "  $(1)  $$<"
	@rm -f $$@
	$$(Q)$$($(1)_cc) $$(test_flags) -MMD -MP -MF $$@.d -o $$@ $$< -lcmocka
endef
$(foreach v,plain asan tsan cov,$(eval $(call variant,$(v))))

cov: | deps-cov ## measure the tests' coverage of the headers: build/cov/index.html
	@$(build) $(cov)
	@find build/test/cov -name '*.gcda' -delete
	@MM_TEST_OPS=$${MM_TEST_OPS:-100000} tools/run-tests -j $(JOBS) $(cov)
	@mkdir -p build/cov
	gcovr -r . --object-directory build/test/cov -f 'mm_.*\.h' \
	    --html-details build/cov/index.html --print-summary build/test/cov

build/fuzz/%: tests/fuzz/%.c $(headers) $(wildcard examples/bootmaps/*.[ch]) | deps-fuzz
	@mkdir -p $(@D)
	$(Q)$(CLANG) -O1 -g -DMM_DEBUG=2 -Wall -Wextra -Werror -I. -Itests $(sanitize) -fsanitize=fuzzer -o $@ $<

fuzz: $(fuzzers) ## fuzz each target of tests/fuzz for FUZZ_SECONDS (60)
	@$(if $(fuzzers),,echo "there are no targets in tests/fuzz";) for f in $(fuzzers); do \
	    mkdir -p $$f.corpus && \
	    $$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 $$f.corpus || exit 1; \
	done

check-core: ## compare the headers' core blocks byte for byte
	@tools/check-core.sh $(headers)

format: | deps-lint ## format the C sources in place
	clang-format -i $(headers) $(wildcard tests/*.h tests/*/*.[ch] bench/*.[ch] bench/*/*.[ch] examples/*/*.[ch])

lint: | deps-lint ## check the formatting and the scripts
	clang-format --dry-run --Werror $(headers) $(wildcard tests/*.h tests/*/*.[ch] bench/*.[ch] bench/*/*.[ch] examples/*/*.[ch])
	shellcheck -x mm .ci/run tools/*.sh tools/run-tests tests/*.sh tests/*/*.sh tests/compile/matrix tests/compile/functions

clean: ## remove build/
	rm -rf build

-include bench/bench.mk
-include examples/kernels.mk
-include $(wildcard build/test/*/*/*.d)

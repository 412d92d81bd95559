# The kernels of examples/: an ELF file each under build/kernels/.

common := examples/kernel_common
kernel_c := $(wildcard examples/kernel_mm/*.c) $(filter-out %/user.c,$(wildcard $(common)/*.c))
kernel_h := $(headers) $(wildcard examples/kernel_mm/*.h $(common)/*.h examples/bootmaps/*)
kernel_flags := -std=gnu11 -O2 -g -Wall -Wextra -Werror -ffreestanding -fno-stack-protector \
    -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -nostdlib -static \
    -Wl,--build-id=none -Wl,-z,max-page-size=4096 -I. -I$(common)
x86_64_cc = $(GCC) -fno-pic -no-pie -mno-red-zone -mgeneral-regs-only -Wl,-z,noexecstack
x86_64_kernel_cc = $(x86_64_cc) -mcmodel=kernel
riscv64_cc = riscv64-unknown-elf-gcc -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany
riscv64_kernel_cc = $(riscv64_cc)

.PHONY: kernels demo
kernels: build/kernels/x86_64/kernel.elf build/kernels/riscv64/kernel.elf

define kernel
build/kernels/$(1)/user.elf: $(common)/user.c $(common)/user.ld $(common)/syscall.h \
    examples/kernel_$(1)/user_port.h examples/kernels.mk
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_cc) $$(kernel_flags) -Iexamples/kernel_$(1) -T $(common)/user.ld -o $$@ $$<

build/kernels/$(1)/kernel.elf: $$(kernel_c) $$(kernel_h) $$(wildcard examples/kernel_$(1)/*) \
    build/kernels/$(1)/user.elf examples/kernels.mk
	@echo "  kernel  $(1)"
	$$(Q)$$($(1)_kernel_cc) $$(kernel_flags) -Wl,--no-warn-rwx-segments -Iexamples/kernel_$(1) \
	    '-DKMM_PORT="port.h"' '-DUSER_IMAGE="build/kernels/$(1)/user.elf"' \
	    -T examples/kernel_$(1)/kernel.ld -o $$@ $$(kernel_c) examples/kernel_$(1)/arch.c \
	    examples/kernel_$(1)/boot.S
endef
$(foreach a,x86_64 riscv64,$(eval $(call kernel,$(a))))

demo: | deps-boot ## boot the example kernels in QEMU and show what they do (MM_ACCEL=kvm: with KVM)
	@$(build) kernels
	@for machine in x86_64 riscv64; do \
	    echo "=== $$machine ==="; $(common)/boot.sh $$machine build/kernels/demo-$$machine.log; \
	    status=$$?; sed -n '/^mm example kernel/,$$p' build/kernels/demo-$$machine.log; \
	    [ $$status -eq 0 ] || exit 1; \
	done

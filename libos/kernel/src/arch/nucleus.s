# The ring-0 nucleus: all code of Unik that runs at CPL 0. Assembly only, few instructions: on a
# paravirtual KVM each is emulated. Its duties: the way into long mode, exceptions and interrupts (as upcalls to
# the library OS in ring 3), and the services behind one int3.
#
# Addresses that tables need split into fields are constants here; libos.ld places the sections accordingly.

.set LIBOS_VADDR, 0x7e0000000000
.set PHYS_DELTA, 0x7e0000000000 - 0x200000      # virtual - physical
.set NUCLEUS, 0x7e0000001000
.set NUCLEUS_DATA, 0x7e0000003000
.set MAX_VCPUS, 16
.set STUB_SIZE, 16
.set VECTORS, 0x50                              # vectors with a stub; 0xff is the spurious vector

.set STACK_SIZE, 512
.set TSS_SIZE, 128
.set TSS_AREA, NUCLEUS_DATA                     # MAX_VCPUS * TSS_SIZE
.set STACK_AREA, NUCLEUS_DATA + MAX_VCPUS * TSS_SIZE
.set IST_AREA, STACK_AREA + MAX_VCPUS * STACK_SIZE
.set INTERRUPT_AREA, IST_AREA + MAX_VCPUS * STACK_SIZE

.set XAPIC, 0x7d00fee00000                      # its registers in the physmap

.set KERNEL_CS, 0x10
.set KERNEL_SS, 0x18
.set USER_SS, 0x2b
.set USER_CS, 0x33
.set TSS_SELECTOR, 0x40

# Slots of the per-vCPU block (arch/vcpu.rs checks them at compile time).
.set GS_MASKED, 16
.set GS_PENDING, 17
.set GS_XAPIC, 18
.set GS_RCX, 40
.set GS_UP_VECTOR, 64
.set GS_UP_ERROR, 72
.set GS_UP_CR2, 80
.set GS_UP_RIP, 88
.set GS_UP_RFLAGS, 96
.set GS_UP_RSP, 104
.set GS_VECTORS, 112
.set GS_TLB_SEEN, 128
.set GS_ANSWERS, 168

.set TIMER_VECTOR, 0x20
.set FLUSH_VECTOR, 0x23

.section .nucleus, "ax"
.globl nucleus_stubs
# ---- one stub a vector, at NUCLEUS + 16 * vector -------------------------------------------------------------
nucleus_stubs:
.set vector, 0
.rept VECTORS
    .balign STUB_SIZE
    .if vector == 3
    jmp int3_entry
    .elseif vector == 2 || vector == 8 || vector == 18
    push $vector
    jmp fatal_entry
    .elseif vector == 10 || vector == 11 || vector == 12 || vector == 13 || vector == 14 || vector == 17 || vector == 21
    push $vector
    jmp exception_entry
    .elseif vector < 32
    push $0
    push $vector
    jmp exception_entry
    .else
    push %rax
    mov $vector, %eax
    jmp interrupt_entry
    .endif
    .set vector, vector + 1
.endr
    .balign STUB_SIZE
spurious_stub:
    iretq

# ---- exceptions: [rsp] = vector, error, rip, cs, rflags, rsp, ss ----------------------------------------------
exception_entry:
    testb $3, 24(%rsp)
    jz fatal_entry
    push %rax
    cmpb $0, %gs:GS_MASKED
    jne libos_fault                             # the library OS itself faulted
    mov %cr2, %rax
    mov %rax, %gs:GS_UP_CR2
    mov 8(%rsp), %rax
    mov %rax, %gs:GS_UP_VECTOR
    mov 16(%rsp), %rax
    mov %rax, %gs:GS_UP_ERROR
    pop %rax
    add $16, %rsp
    jmp upcall

# Turns the interrupt frame at rsp into an upcall: the interrupted rip, rflags, rsp go to the per-vCPU block,
# iretq goes to the library OS with every register as it was.
upcall:
    push %rax
    movb $1, %gs:GS_MASKED
    mov 8(%rsp), %rax
    mov %rax, %gs:GS_UP_RIP
    push %rcx
    movabs $exit_critical_start, %rcx
    sub %rcx, %rax
    cmp $(exit_critical_end - exit_critical_start), %rax
    pop %rcx
    jb 1f
    mov 24(%rsp), %rax
    mov %rax, %gs:GS_UP_RFLAGS
    mov 32(%rsp), %rax
    mov %rax, %gs:GS_UP_RSP
    movabs $upcall_entry, %rax
2:  mov %rax, 8(%rsp)
    andq $~0x40500, 24(%rsp)                     # clear TF, DF, AC for the library OS
    pop %rax
    iretq
1:  movabs $upcall_in_exit, %rax
    jmp 2b

# ---- interrupts: [rsp] = rax, rip, cs, rflags, rsp, ss; eax = vector ------------------------------------------
interrupt_entry:
    push %rcx
    push %rdx
    bts %rax, %gs:GS_VECTORS
    cmp $FLUSH_VECTOR, %eax
    je flush_interrupt
    movb $1, %gs:GS_PENDING
end_of_interrupt:
    cmpb $0, %gs:GS_XAPIC
    jne 2f
    mov $0x80b, %ecx                            # x2APIC EOI
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
3:  pop %rdx
    pop %rcx
    testb $3, 16(%rsp)
    jz 1f                                       # interrupted a halt or a service
    cmpb $0, %gs:GS_PENDING
    je 1f
    cmpb $0, %gs:GS_MASKED
    jne 1f
    movq $0x100, %gs:GS_UP_VECTOR                # "interrupts are pending"
    pop %rax
    jmp upcall
1:  pop %rax
    iretq
2:  movabs $XAPIC, %rax                         # xAPIC EOI register
    movl $0, 0xb0(%rax)
    jmp 3b

# TLB shoot-down needs no library OS: reload CR3 and say that it was done. Nothing to flush: only a memory barrier was asked for.
flush_interrupt:
    mov %gs:GS_TLB_SEEN + 8, %rax                # generation wanted, read before the flush
    cmp %gs:GS_TLB_SEEN, %rax
    jbe 1f
    mov %cr3, %rcx
    mov %rcx, %cr3
    mov %rax, %gs:GS_TLB_SEEN
1:  incq %gs:GS_ANSWERS
    jmp end_of_interrupt

# ---- what ends the machine -------------------------------------------------------------------------------------
# A fault of the library OS with upcalls masked: it gets one upcall on its emergency stack to say where.
# [rsp] = rax, vector, error, rip, cs, rflags, rsp, ss
libos_fault:
    mov %cr2, %rax
    mov %rax, %gs:GS_UP_CR2
    mov 8(%rsp), %rax
    mov %rax, %gs:GS_UP_VECTOR
    mov 16(%rsp), %rax
    mov %rax, %gs:GS_UP_ERROR
    mov 24(%rsp), %rax
    mov %rax, %gs:GS_UP_RIP
    # iretq at the end of a masked exit, or a fault in it, cannot happen: rip is checked before.
    mov 48(%rsp), %rax
    mov %rax, %gs:GS_UP_RSP
    movabs $libos_fault_upcall, %rax
    mov %rax, 24(%rsp)
    pop %rax
    add $16, %rsp
    iretq

# An exception in ring 0, a double fault, NMI or machine check: registers to the control page (its physmap alias), exit.
# [rsp] = vector, error, rip, cs, rflags, rsp, ss
fatal_entry:
    movabs $0x7d0000007000, %rax
    mov (%rsp), %rcx
    mov %rcx, 72(%rax)
    mov 8(%rsp), %rcx
    mov %rcx, 80(%rax)
    mov 16(%rsp), %rcx
    mov %rcx, 56(%rax)
    mov 40(%rsp), %rcx
    mov %rcx, 88(%rax)
    mov %cr2, %rcx
    mov %rcx, 64(%rax)
    mov $0x400, %eax
    mov $0xf4, %edx
    out %eax, %dx
1:  cli
    hlt
    jmp 1b

# ---- services: int3 at one address, number in eax, arguments in rdi, rsi; rax, rcx, rdx, r8-r11 are lost -------
int3_entry:
    push %rax
    movabs $service_return, %rax
    cmp %rax, 8(%rsp)
    jne program_int3
    pop %rax
    cmp $8, %eax
    ja 1f
    lea service_table(%rip), %rcx
    jmp *(%rcx, %rax, 8)
1:  mov $-1, %rax
    iretq

program_int3:
    pop %rax
    push $0
    push $3
    jmp exception_entry

    .balign 8
service_table:
    .quad service_arm, service_halt, service_flush, service_ipi, service_out32
    .quad service_mmio, service_cpuid, service_wrmsr, service_outs

# 0: arm the TSC deadline rdi (0: none)
service_arm:
    mov %rdi, %rax
    mov %rdi, %rdx
    shr $32, %rdx
    mov $0x6e0, %ecx
    wrmsr
    iretq

# 1: arm the deadline rdi unless rdi is -1 (leave as is), then halt unless something is pending
service_halt:
    cmp $-1, %rdi
    je 2f
    mov %rdi, %rax                              # armed even if nothing is waited for: the library OS counts on it
    mov %rdi, %rdx
    shr $32, %rdx
    mov $0x6e0, %ecx
    wrmsr
2:  cmpb $0, %gs:GS_PENDING
    jne 1f
    sti
    hlt
    cli
1:  iretq

# 2: flush the whole TLB
service_flush:
    mov %cr3, %rax
    mov %rax, %cr3
    iretq

# 3: write rdi to the x2APIC interrupt command register
service_ipi:
    mov %rdi, %rax
    mov %rdi, %rdx
    shr $32, %rdx
    mov $0x830, %ecx
    wrmsr
    iretq

# 4: 32-bit out of rsi to port rdi
service_out32:
    mov %edi, %edx
    mov %esi, %eax
    out %eax, %dx
    iretq

# 5: rsi register operations at rdi: { u64 address, u32 value, u32 write }, each 16 bytes
service_mmio:
    test %rsi, %rsi
    jz 3f
1:  mov (%rdi), %rdx
    cmpl $0, 12(%rdi)
    jne 2f
    mov (%rdx), %eax
    mov %eax, 8(%rdi)
    add $16, %rdi
    dec %rsi
    jnz 1b
    iretq
2:  mov 8(%rdi), %eax
    mov %eax, (%rdx)
    add $16, %rdi
    dec %rsi
    jnz 1b
3:  iretq

# 6: rsi cpuid queries at rdi: { u32 leaf, subleaf, eax, ebx, ecx, edx }, each 24 bytes
service_cpuid:
    mov %rbx, %r8
1:  mov (%rdi), %eax
    mov 4(%rdi), %ecx
    cpuid
    mov %eax, 8(%rdi)
    mov %ebx, 12(%rdi)
    mov %ecx, 16(%rdi)
    mov %edx, 20(%rdi)
    add $24, %rdi
    dec %rsi
    jnz 1b
    mov %r8, %rbx
    iretq

# 7: write rsi to MSR rdi
service_wrmsr:
    mov %edi, %ecx
    mov %rsi, %rax
    mov %rsi, %rdx
    shr $32, %rdx
    wrmsr
    iretq

# 8: rsi bytes at rdi to the debug port
service_outs:
    mov $0xe9, %edx
1:  test %rsi, %rsi
    jz 2f
    mov (%rdi), %al
    out %al, %dx
    inc %rdi
    dec %rsi
    jmp 1b
2:  iretq

# ---- LSTAR: works whether syscall enters ring 0 or stays in ring 3 (it lives on a page both may execute) -------
.section .text.entry, "ax"
.globl lstar_entry, lstar_shim
lstar_entry:
    movb $1, %gs:GS_MASKED
    mov %rcx, %gs:GS_RCX
    mov %cs, %ecx
    test $3, %cl
    jz 1f
    mov %gs:GS_RCX, %rcx
    jmp syscall_entry_masked
1:  lea lstar_shim(%rip), %rcx
    sysretq
lstar_shim:
    mov %gs:GS_RCX, %rcx
    jmp syscall_entry_masked

# ---- PVH entry: 32-bit protected mode, paging off, flat segments, ebx = start_info, running at physical addresses --
.section .nucleus, "ax"
.globl pvh_entry
.code32
pvh_entry:
    cli
    cld
    mov %ebx, %edi                              # start_info
    xor %esi, %esi                              # vCPU index
    lgdtl gdt_pointer32 - PHYS_DELTA
    jmp enter_long_mode

# Further vCPUs arrive here in 32-bit protected mode with our GDT loaded; esi = vCPU index.
.globl ap_entry32
ap_entry32:
    mov $KERNEL_SS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss

enter_long_mode:
    mov $1, %eax
    cpuid
    mov %ecx, %ebp
    mov $0x10620, %eax                          # PAE, OSFXSR, OSXMMEXCPT, FSGSBASE
    bt $26, %ebp                                # XSAVE?
    jnc 1f
    or $0x40000, %eax                           # OSXSAVE
1:  mov %eax, %cr4
    mov (UNIK_IMAGE_INFO - PHYS_DELTA + 32), %eax   # boot_pml4_paddr
    mov %eax, %cr3
    mov $0xc0000080, %ecx                       # EFER: SCE, LME, NXE
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax                       # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmpl $KERNEL_CS, $(long_mode - PHYS_DELTA)
.code64
long_mode:
    movabs $long_mode_high, %rax
    jmp *%rax
long_mode_high:
    movabs $UNIK_IMAGE_INFO, %rax
    mov 24(%rax), %rax                          # pml4_paddr
    mov %rax, %cr3
    movabs $gdt_pointer, %rax
    lgdt (%rax)
    movabs $idt_pointer, %rax
    lidt (%rax)
    # rsp = this vCPU's ring-0 stack
    mov %esi, %eax
    inc %eax
    imul $STACK_SIZE, %eax
    movabs $STACK_AREA, %rsp
    add %rax, %rsp
    mov $USER_SS, %eax
    mov %eax, %ds
    mov %eax, %es
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $KERNEL_SS, %eax
    mov %eax, %ss
    mov %esi, %eax
    shl $4, %eax
    add $TSS_SELECTOR, %eax
    ltr %ax
    bt $26, %ebp
    jnc 1f
    mov $0xd, %eax
    xor %ecx, %ecx
    cpuid
    and $0xe7, %eax                             # x87, SSE, AVX, AVX-512
    xor %edx, %edx
    xor %ecx, %ecx
    xsetbv
1:  mov $TIMER_VECTOR, %ebx                     # LVT timer: TSC deadline where there is one, else one shot
    bt $24, %ebp
    jnc 1f
    or $0x40000, %ebx
1:  bt $21, %ebp
    jnc xapic_setup
    mov $0x1b, %ecx                             # APIC base: x2APIC on
    rdmsr
    or $0xc00, %eax
    wrmsr
    mov $0x80f, %ecx                            # spurious vector 0xff, APIC enabled
    mov $0x1ff, %eax
    xor %edx, %edx
    wrmsr
    mov $0x808, %ecx                            # task priority 0
    xor %eax, %eax
    wrmsr
    mov $0x832, %ecx
    mov %ebx, %eax
    wrmsr
apic_ready:
    mov $0xc0000081, %ecx                       # STAR: syscall CS 0x10, sysret base 0x23
    xor %eax, %eax
    mov $0x00230010, %edx
    wrmsr
    mov $0xc0000082, %ecx                       # LSTAR
    movabs $lstar_entry, %rax
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
    # SFMASK: TF, DF, AC. Not IF: where syscall stays in ring 3, it would never come back. Where it enters ring 0, interrupts
    # have a stack of their own (ist2), so the few instructions on the program's stack are safe.
    mov $0xc0000084, %ecx
    mov $0x40500, %eax
    xor %edx, %edx
    wrmsr
    movabs $VCPU_BLOCKS, %rax                   # gs: this vCPU's block
    mov %rsi, %rdx
    imul $VCPU_BLOCK_SIZE, %rdx
    add %rdx, %rax
    mov %rax, %rdx
    shr $32, %rdx
    mov $0xc0000101, %ecx
    wrmsr
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    movabs $BOOT_STACKS, %rax                   # ring-3 boot stack of this vCPU
    mov (%rax, %rsi, 8), %rcx
    push $USER_SS
    push %rcx
    push $0x202
    push $USER_CS
    movabs $libos_start, %rax
    push %rax
    # rdi = start_info, rsi = vCPU index, rdx = TSC
    iretq

# The same through the memory-mapped registers of an xAPIC (no x2APIC: QEMU's emulation before 9.0).
xapic_setup:
    movabs $XAPIC, %rax
    movl $0x1ff, 0xf0(%rax)
    movl $0, 0x80(%rax)
    movl $0xb, 0x3e0(%rax)                      # timer counts every bus cycle
    mov %ebx, 0x320(%rax)
    jmp apic_ready

# ---- real-mode start of further vCPUs, copied to AP_START_PADDR; the last 4 bytes hold the vCPU index -----------
.section .rodata
.globl ap_start, ap_start_end
.code16
ap_start:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    mov (ap_index - ap_start), %esi
    lgdtl (ap_gdt_pointer - ap_start)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x8, $(ap_entry32 - PHYS_DELTA)
    .balign 8
ap_gdt_pointer:
    .word GDT_LIMIT
    .long gdt - PHYS_DELTA
    .balign 8
ap_index:
    .long 0
ap_start_end:
.code64

# ---- ring-0 data -------------------------------------------------------------------------------------------------
.section .nucleus_data, "aw"
.set cpu, 0
.rept MAX_VCPUS
    .long 0
    .quad STACK_AREA + (cpu + 1) * STACK_SIZE   # rsp0
    .quad 0, 0
    .quad 0
    .quad IST_AREA + (cpu + 1) * STACK_SIZE     # ist1: double fault, NMI, machine check
    .quad INTERRUPT_AREA + (cpu + 1) * STACK_SIZE   # ist2: interrupts
    .quad 0, 0, 0, 0, 0
    .quad 0
    .word 0, 104                                # no I/O bitmap
    .balign TSS_SIZE
    .set cpu, cpu + 1
.endr
    .fill 3 * MAX_VCPUS * STACK_SIZE, 1, 0

    .balign 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff                    # 0x08 32-bit code
    .quad 0x00af9b000000ffff                    # 0x10 ring-0 code
    .quad 0x00cf93000000ffff                    # 0x18 ring-0 data
    .quad 0x00cffb000000ffff                    # 0x20 ring-3 32-bit code (unused, STAR needs the place)
    .quad 0x00cff3000000ffff                    # 0x28 ring-3 data
    .quad 0x00affb000000ffff                    # 0x30 ring-3 code
    .quad 0
.set cpu, 0
.rept MAX_VCPUS
    .set base, TSS_AREA + cpu * TSS_SIZE
    .word 103, base & 0xffff
    .byte (base >> 16) & 0xff, 0x89, 0, (base >> 24) & 0xff
    .long (base >> 32) & 0xffffffff, 0
    .set cpu, cpu + 1
.endr
gdt_end:
.set GDT_LIMIT, gdt_end - gdt - 1

    .balign 16
idt:
.set vector, 0
.rept 256
    .if vector < VECTORS
        .set handler, NUCLEUS + vector * STUB_SIZE
    .else
        .set handler, NUCLEUS + VECTORS * STUB_SIZE
    .endif
    .word handler & 0xffff, KERNEL_CS
    .if vector == 2 || vector == 8 || vector == 18
    .byte 1, 0x8e
    .elseif vector == 3
    .byte 0, 0xee
    .elseif vector >= 32
    .byte 2, 0x8e
    .else
    .byte 0, 0x8e
    .endif
    .word (handler >> 16) & 0xffff
    .long (handler >> 32) & 0xffffffff, 0
    .set vector, vector + 1
.endr
idt_end:

    .balign 8
    .word 0, 0, 0
gdt_pointer:
    .word GDT_LIMIT
    .quad gdt
    .balign 8
    .word 0, 0, 0
idt_pointer:
    .word idt_end - idt - 1
    .quad idt
    .balign 8
gdt_pointer32:
    .word GDT_LIMIT
    .long gdt - PHYS_DELTA

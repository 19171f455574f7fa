    # Starts vCPU 1 with INIT and SIPI; that one, in real mode, says so. Exits with 100 + what vCPU 1 left.
    .include "guest.inc"
start:
    mov $trampoline, %esi
    mov $0x8000, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    mov $0x1b, %ecx
    rdmsr
    or $0xc00, %eax
    wrmsr
    mov $0x830, %ecx
    mov $1, %edx
    mov $0x4500, %eax               # INIT
    wrmsr
    mov $0x4608, %eax               # SIPI, page 8
    wrmsr
1:
    pause
    mov 0x9000, %eax
    test %eax, %eax
    jz 1b
    add $100, %eax
    exit
trampoline:
    .code16
    mov $1, %eax                    # cpuid: initial APIC id
    cpuid
    shr $24, %ebx
    xor %ax, %ax
    mov %ax, %ds
    add $6, %ebx
    mov %ebx, 0x9000
    hlt
trampoline_end:

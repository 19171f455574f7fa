    # The first vCPU floods the console while the others reset it, set its queues up and ring its bells, by the batch port.
    .include "guest.inc"
    .include "console.inc"
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
    mov $-1, %edx                   # all but myself
    mov $0xc4500, %eax
    wrmsr
    mov $0xc4608, %eax
    wrmsr
    mov $ready, %esi
    debug
1:
    bring_up
    movl $ready, TX
    movl $0x10000, TX + 8
    mov $200, %ebx
2:
    incw TX + 0x4002
    reg 0x50, $1
    dec %ebx
    jnz 2b
    jmp 1b
ready:
    .asciz "ready\n"

    .macro access offset, value
    .quad CONSOLE + \offset
    .long \value, 1
    .endm
    .align 8
batch:
    .long 12, 0
    access 0x70, 0
    access 0x70, 3
    access 0x24, 1
    access 0x20, 1
    access 0x70, 0xb
    access 0x30, 1
    access 0x38, 8
    access 0x80, TX
    access 0x90, (TX + 0x4000)
    access 0xa0, (TX + 0x8000)
    access 0x44, 1
    access 0x70, 0xf
trampoline:
    .code16
3:
    mov $0xf8, %dx
    mov $batch, %eax
    out %eax, %dx
    mov $0xe9, %dx
    in %dx, %al
    jmp 3b
trampoline_end:

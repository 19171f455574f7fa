    # Rings every doorbell for ever, also those of queues that are not there, and never acknowledges an interrupt. All pins of the
    # I/O APIC are level-triggered and lead to a vCPU that does not listen.
    .include "guest.inc"
    .include "console.inc"
start:
    mov $0x10, %ecx
1:
    mov %ecx, 0xfec00000
    movl $0x8030, 0xfec00010        # level, vector 0x30
    inc %ecx
    mov %ecx, 0xfec00000
    movl $0, 0xfec00010
    inc %ecx
    cmp $0x40, %ecx
    jb 1b
    bring_up
    mov $ready, %esi
    debug
    # A chain that was offered and taken again and again.
    movl $ready, TX
    movl $1, TX + 8
    xor %ebx, %ebx
2:
    inc %ebx
    mov %bx, TX + 0x4002
    reg 0x50, $1
    reg 0x50, $0
    reg 0x50, $2
    reg 0x50, $0xffffffff
    mov CONSOLE + 0x60, %eax        # seen and not acknowledged
    movl $0, 0xd0001050
    movl $0, 0xd0002050
    jmp 2b
ready:
    .asciz "ready\n"

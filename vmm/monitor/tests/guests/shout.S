    # Shouts at the debug port and at the serial line for ever.
    .include "guest.inc"
start:
    mov $ready, %esi
    debug
    mov $0x100000, %ecx
1:
    mov $0xe9, %dx
    mov $'x', %al
    out %al, %dx
    mov $0x3f8, %dx
    out %al, %dx
    loop 1b
    jmp 1b
ready:
    .asciz "ready\n"

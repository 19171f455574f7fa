    # Halts with interrupts off: nothing wakes it.
    .include "guest.inc"
start:
    mov $ready, %esi
    debug
1:
    cli
    hlt
    jmp 1b
ready:
    .asciz "ready\n"

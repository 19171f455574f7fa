    # Never ends by itself.
    .include "guest.inc"
start:
    mov $ready, %esi
    debug
1:
    pause
    jmp 1b
ready:
    .asciz "ready\n"

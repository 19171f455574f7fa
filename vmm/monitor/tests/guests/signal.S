    # Waits for a signal and ends as killed by it.
    .include "guest.inc"
start:
    mov $ready, %esi
    debug
1:
    pause
    mov SIGNALS, %eax
    test %eax, %eax
    jz 1b
    bsf %eax, %eax
    inc %eax
    or $0x100, %eax
    exit
ready:
    .asciz "ready\n"

    # Writes for ever, until nobody reads; then ends as killed by SIGPIPE.
    .include "guest.inc"
    .include "console.inc"
start:
    bring_up
    mov $0x61616161, %eax
    mov $0x320000, %edi
    mov $0x4000, %ecx
    rep stosl
1:
    mov $0x320000, %esi
    mov $0x10000, %ecx
    send
    testl $2, HANGUPS
    jz 1b
    mov $0x10d, %eax
    exit

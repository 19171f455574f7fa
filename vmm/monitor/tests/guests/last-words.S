    # A library OS that panics with an unpleasant message.
    .include "guest.inc"
start:
    movl $4096, MESSAGE_LEN
    movl $0x6d31335b, MESSAGE + 1
    movb $0x1b, MESSAGE
    mov $0x200, %eax
    exit

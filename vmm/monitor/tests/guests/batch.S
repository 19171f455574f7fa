    # Makes several accesses by one write to the batch port; exits with 1 when all answers are right.
    .include "guest.inc"
    .set PORT_BATCH, 0xf8
start:
    mov $PORT_BATCH, %dx
    mov $0x7fffffff, %eax           # nothing there: no harm
    out %eax, %dx
    mov $batch, %eax
    out %eax, %dx
    xor %ebx, %ebx
    cmpl $0x74726976, magic
    jne 1f
    cmpl $3, status
    jne 1f
    cmpl $0xffffffff, nowhere
    jne 1f
    inc %ebx
1:
    mov %ebx, %eax
    exit
    .align 8
batch:
    .long 5, 0
    .quad 0xd0000070
    .long 1, 1
    .quad 0xd0000070
    .long 3, 1
    .quad 0xd0000070
status:
    .long 0, 0
    .quad 0xd0000000
magic:
    .long 0, 0
    .quad 0xe0000000
nowhere:
    .long 0, 0

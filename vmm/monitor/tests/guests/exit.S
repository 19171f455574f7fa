    .include "guest.inc"
start:
    mov $text, %esi
    debug
    mov $42, %eax
    exit
text:
    .asciz "first words\nlast words"

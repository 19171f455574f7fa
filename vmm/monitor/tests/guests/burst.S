    # Offers output and exits at once, without waiting until it is taken.
    .include "guest.inc"
    .include "console.inc"
start:
    bring_up
    movl $text, TX
    movl $end - text, TX + 8
    movw $1, TX + 0x4002
    xor %eax, %eax
    exit
text:
    .ascii "not lost\n"
end:

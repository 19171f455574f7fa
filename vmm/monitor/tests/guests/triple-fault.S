    .include "guest.inc"
start:
    lidt nothing
    .globl the_crash
    .type the_crash, @function
the_crash:
    ud2
    .size the_crash, . - the_crash
nothing:
    .word 0
    .long 0

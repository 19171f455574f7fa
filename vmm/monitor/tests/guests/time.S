    # Stamps all phases with the time stamp counter.
    .include "guest.inc"
start:
    xor %esi, %esi
1:
    rdtsc
    mov %eax, CONTROL(, %esi, 8)
    mov %edx, CONTROL + 4(, %esi, 8)
    inc %esi
    cmp $5, %esi
    jne 1b
    xor %eax, %eax
    exit

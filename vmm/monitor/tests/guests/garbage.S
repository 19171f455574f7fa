    # Writes garbage to every port but the exit port, to every register of the first devices and of the I/O APIC, and to addresses where
    # nothing is, in all widths; reads all of it, too. Exits with 7 if it gets through.
    .include "guest.inc"

    .macro random                   # the next number to eax; state in edi
    imul $1103515245, %edi, %edi
    add $12345, %edi
    mov %edi, %eax
    rol $16, %eax
    .endm

start:
    mov $0xbadc0de, %edi
    xor %esi, %esi
ports:
    mov %esi, %edx
    and $~3, %edx
    cmp $0xf4, %edx                 # the exit port
    je 1f
    mov %esi, %edx
    random
    out %al, %dx
    in %dx, %al
    test $0x1f, %dl                 # wider ones now and then
    jnz 1f
    out %ax, %dx
    out %eax, %dx
    in %dx, %ax
    in %dx, %eax
1:
    inc %esi
    cmp $0x1000, %esi
    jb ports

    mov $ranges, %ebp
range:
    mov (%ebp), %ebx
    test %ebx, %ebx
    jz done
    mov 4(%ebp), %esi
2:
    random
    mov %eax, (%ebx)
    mov (%ebx), %eax
    mov %al, 1(%ebx)
    mov %ax, 2(%ebx)
    mov 3(%ebx), %al
    add $4, %ebx
    cmp %esi, %ebx
    jb 2b
    add $8, %ebp
    jmp range
done:
    mov $7, %eax
    exit
    .align 4
ranges:
    .long 0xd0000000, 0xd0000140, 0xd0001000, 0xd0001100, 0xd0002000, 0xd0002100, 0xd0003000, 0xd0003010
    .long 0xfec00000, 0xfec00040, 0xe0000000, 0xe0000010, 0xffffffe0, 0xfffffff0, 0

    # Takes the console's interrupt through the I/O APIC and the local APIC, sleeping until it comes.
    .include "guest.inc"
    .include "console.inc"
    .set VECTOR, 0x35
start:
    lgdt gdt_pointer
    ljmp $8, $1f
1:
    mov $handler, %eax
    mov %ax, idt + 8 * VECTOR
    shr $16, %eax
    mov %ax, idt + 8 * VECTOR + 6
    movw $8, idt + 8 * VECTOR + 2
    movw $0x8e00, idt + 8 * VECTOR + 4
    lidt idt_pointer
    mov $0x1b, %ecx                 # x2APIC on
    rdmsr
    or $0xc00, %eax
    wrmsr
    mov $0x80f, %ecx                # spurious vector, software enable
    xor %edx, %edx
    mov $0x1ff, %eax
    wrmsr
    movl $0x1b, 0xfec00000          # I/O APIC: GSI 5 of window 0, to APIC id 0
    movl $0, 0xfec00010
    movl $0x1a, 0xfec00000
    movl $VECTOR, 0xfec00010
    bring_up
    movl $text, TX
    movl $end - text, TX + 8
    movw $1, TX + 0x4002
    reg 0x50, $1
2:
    sti
    hlt
    jmp 2b
handler:
    mov CONSOLE + 0x60, %eax        # interrupt status
    mov %eax, CONSOLE + 0x64
    exit
text:
    .ascii "sleeping\n"
end:
    .align 16
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
idt_pointer:
    .word 8 * 256 - 1
    .long idt
    .align 16
idt:
    .fill 256, 8, 0

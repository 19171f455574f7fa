    # Prints the command line and the first module (NULs as line ends) to the debug port, then exits with 0.
    .include "guest.inc"
start:
    mov 24(%ebx), %esi              # start_info.cmdline_paddr
    debug
    mov $10, %al
    out %al, %dx
    mov 16(%ebx), %edi              # modlist_paddr
    mov (%edi), %esi
    mov 8(%edi), %ecx
1:
    lodsb
    test %al, %al
    jnz 2f
    mov $10, %al
2:
    out %al, %dx
    dec %ecx
    jnz 1b
    xor %eax, %eax
    exit

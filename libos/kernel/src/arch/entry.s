# Ring-3 entries of the library OS: rewritten system calls, cpuid, upcalls; the ways back; the thread switch.
#
# The frame on a thread's library-OS stack (struct Frame in arch/frame.rs), from low to high:
#   xmm0-15, 8 bytes of padding, r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi, orig_rax, rip cs rflags rsp ss

.set GS_CPUID_TABLE, 152
.set GS_USER_RSP, 32
.set GS_KSTACK, 48
.set FRAME_XMM, 256 + 8

.section .text.entry, "ax"

.macro SAVE_REGISTERS
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $FRAME_XMM, %rsp
    movaps %xmm0, 0(%rsp)
    movaps %xmm1, 16(%rsp)
    movaps %xmm2, 32(%rsp)
    movaps %xmm3, 48(%rsp)
    movaps %xmm4, 64(%rsp)
    movaps %xmm5, 80(%rsp)
    movaps %xmm6, 96(%rsp)
    movaps %xmm7, 112(%rsp)
    movaps %xmm8, 128(%rsp)
    movaps %xmm9, 144(%rsp)
    movaps %xmm10, 160(%rsp)
    movaps %xmm11, 176(%rsp)
    movaps %xmm12, 192(%rsp)
    movaps %xmm13, 208(%rsp)
    movaps %xmm14, 224(%rsp)
    movaps %xmm15, 240(%rsp)
    cld
    mov %rsp, %rdi
.endm

.macro RESTORE_XMM
    movaps 0(%rsp), %xmm0
    movaps 16(%rsp), %xmm1
    movaps 32(%rsp), %xmm2
    movaps 48(%rsp), %xmm3
    movaps 64(%rsp), %xmm4
    movaps 80(%rsp), %xmm5
    movaps 96(%rsp), %xmm6
    movaps 112(%rsp), %xmm7
    movaps 128(%rsp), %xmm8
    movaps 144(%rsp), %xmm9
    movaps 160(%rsp), %xmm10
    movaps 176(%rsp), %xmm11
    movaps 192(%rsp), %xmm12
    movaps 208(%rsp), %xmm13
    movaps 224(%rsp), %xmm14
    movaps 240(%rsp), %xmm15
    add $FRAME_XMM, %rsp
.endm

.macro RESTORE_REGISTERS
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
.endm

# ---- system calls: rcx = return address, everything else as at `syscall` ---------------------------------------
.globl syscall_entry, syscall_entry_masked
    .balign 64
syscall_entry:
    movb $1, %gs:GS_MASKED
syscall_entry_masked:
    mov %rsp, %gs:GS_USER_RSP
    mov %gs:GS_KSTACK, %rsp
    push $USER_SS
    push %gs:GS_USER_RSP
    push $0x202
    push $USER_CS
    push %rcx
    push %rax
    SAVE_REGISTERS
    call syscall_handler
    test %al, %al
    jnz exit_to_user
    RESTORE_XMM
    RESTORE_REGISTERS
    mov 8(%rsp), %rcx                           # rip
    mov 32(%rsp), %rsp
    # From here on the state is the program's (rip in rcx): an upcall may come between any two instructions.
    movb $0, %gs:GS_MASKED
    cmpb $0, %gs:GS_PENDING
    jne 1f
    jmp *%rcx
1:  movb $1, %gs:GS_MASKED                      # as if interrupted at the return address
    mov %rsp, %gs:GS_USER_RSP
    mov %gs:GS_KSTACK, %rsp
    push $USER_SS
    push %gs:GS_USER_RSP
    push $0x202
    push $USER_CS
    push %rcx
    push $-1
    SAVE_REGISTERS
    call pending_handler
    jmp exit_to_user

# ---- upcalls from the nucleus (GS_MASKED is set) ----------------------------------------------------------------
.globl upcall_entry, upcall_in_exit
upcall_entry:
    mov %gs:GS_KSTACK, %rsp
    push $USER_SS
    push %gs:GS_UP_RSP
    push %gs:GS_UP_RFLAGS
    push $USER_CS
    push %gs:GS_UP_RIP
upcall_in_exit:                                 # the true frame lies at rsp already
    push $-1
    SAVE_REGISTERS
    call upcall_handler

# ---- the general way back: rsp = Frame --------------------------------------------------------------------------
.globl exit_to_user
exit_to_user:
    RESTORE_XMM
    RESTORE_REGISTERS
    add $8, %rsp                                # orig_rax
.globl exit_critical_start, exit_critical_end
exit_critical_start:
    movb $0, %gs:GS_MASKED
    cmpb $0, %gs:GS_PENDING
    jne 1f
    iretq
1:  movb $1, %gs:GS_MASKED
exit_critical_end:
    push $-1
    SAVE_REGISTERS
    call pending_handler
    jmp exit_to_user

# A new thread's first switch arrives here with its Frame at rsp.
.globl thread_start
thread_start:
    mov %rsp, %rdi
    call thread_begin
    jmp exit_to_user

# ---- cpuid: upcalls masked, r11 = return address, r11 of the program in its gs slot -----------------------------
# Table: u64 count, then { u32 leaf, subleaf, eax, ebx, ecx, edx }. A leaf that is not in it runs the instruction.
.globl cpuid_entry
cpuid_entry:
    mov %rsi, %gs:GS_USER_RSP                   # free while masked
    mov %gs:GS_CPUID_TABLE, %rsi
    mov (%rsi), %rbx
    add $8, %rsi
1:  test %rbx, %rbx
    jz 3f
    cmp %eax, (%rsi)
    jne 2f
    cmpl $-1, 4(%rsi)                           # leaf without subleaves
    je 4f
    cmp %ecx, 4(%rsi)
    je 4f
2:  add $24, %rsi
    dec %rbx
    jmp 1b
3:  cpuid
    mov %gs:GS_USER_RSP, %rsi
    jmp *%r11
4:  mov 8(%rsi), %eax
    mov 12(%rsi), %ebx
    mov 16(%rsi), %ecx
    mov 20(%rsi), %edx
    mov %gs:GS_USER_RSP, %rsi
    jmp *%r11

# ---- switch_stack(save: *mut u64 [rdi], load: u64 [rsi]) --------------------------------------------------------
.globl switch_stack
switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

# ---- nucleus services: nucleus_call(rdi, rsi, edx = number) -> rax ----------------------------------------------
.globl nucleus_call, service_return
nucleus_call:
    mov %edx, %eax
    int3
service_return:
    ret

# store_pair(address: rdi, rsi, rdx) -> 1, or 0 when the program's memory is not writable there (yet).
.globl store_pair
store_pair:
    mov %rsi, (%rdi)
    mov %rdx, 8(%rdi)
    mov $1, %eax
    ret
store_pair_end:

# A fault of the library OS itself: say where, on this vCPU's emergency stack.
# Only store_pair may fault: then it answers 0.
.globl libos_fault_upcall
libos_fault_upcall:
    lea store_pair(%rip), %rax
    mov %gs:GS_UP_RIP, %rcx
    sub %rax, %rcx
    cmp $(store_pair_end - store_pair), %rcx
    jae 1f
    xor %eax, %eax
    ret
1:
    mov %gs:GS_EMERGENCY, %rsp
    mov %rbp, %rdi
    call libos_fault_handler

# vCPU start: rdi = start_info, rsi = vCPU index, rdx = TSC at entry
.globl libos_start
libos_start:
    xor %ebp, %ebp
    call kernel_start
    ud2
.set GS_EMERGENCY, 56

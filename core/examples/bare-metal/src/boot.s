# From the loader's 32-bit entry (PVH: ebx has the physical address of a struct hvm_start_info) to
# 64-bit code with a stack and the first GiB mapped to itself.

.section .note.Xen, "a", @note
.balign 4
.long 4, 8, 18                          # XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.quad start32

.section .text.boot, "ax"
.code32
.global start32
start32:
	mov esi, ebx
	mov eax, offset page_directory_pointers
	or eax, 3                       # present, writable
	mov [page_map], eax
	mov eax, offset page_directory
	or eax, 3
	mov [page_directory_pointers], eax
	mov eax, 0x83                   # present, writable, a page of 2 MiB
	xor ecx, ecx
2:	mov [page_directory + ecx * 8], eax
	add eax, 0x200000
	inc ecx
	cmp ecx, 512
	jne 2b
	mov eax, offset page_map
	mov cr3, eax
	mov eax, cr4
	or eax, 0x620                   # PAE, and SSE: OSFXSR, OSXMMEXCPT
	mov cr4, eax
	mov ecx, 0xc0000080             # EFER.LME
	rdmsr
	or eax, 0x100
	wrmsr
	mov eax, cr0
	and eax, 0xfffffffb             # no EM
	or eax, 0x80000002              # PG, MP
	mov cr0, eax
	lgdt [descriptors_end]
	push 8
	mov eax, offset start64
	push eax
	retf

.code64
start64:
	xor eax, eax
	mov ds, eax
	mov es, eax
	mov ss, eax
	lea rsp, [rip + stack_end]
	xor ebp, ebp                    # the last frame
	mov edi, esi
	call start_kernel
	ud2

# What the compiler calls.
.section .text.memory, "ax"
.global memcpy, memmove, memset, memcmp, bcmp
memmove:
	mov rax, rdi
	sub rax, rsi
	cmp rax, rdx
	jb 3f                           # the end of the source would be overwritten
memcpy:
	mov rax, rdi
	mov rcx, rdx
	rep movsb
	ret
3:	mov rax, rdi
	mov rcx, rdx
	lea rdi, [rdi + rdx - 1]
	lea rsi, [rsi + rdx - 1]
	std
	rep movsb
	cld
	ret
memset:
	mov r8, rdi
	mov eax, esi
	mov rcx, rdx
	rep stosb
	mov rax, r8
	ret
memcmp:
bcmp:
	xor eax, eax
	mov rcx, rdx
	cmp rax, rax                    # equal, where there is nothing to compare
	repe cmpsb
	je 4f
	sbb eax, eax
	or eax, 1
4:	ret

# What core as it comes names, for unwinding; nothing here unwinds.
.global rust_eh_personality
rust_eh_personality:
	ud2

.section .rodata.boot, "a"
.balign 8
descriptors:
	.quad 0, 0x00af9a000000ffff     # 64-bit code
descriptors_end:
	.word descriptors_end - descriptors - 1
	.long descriptors

.section .bss.boot, "aw", @nobits
.balign 4096
page_map:
	.skip 4096
page_directory_pointers:
	.skip 4096
page_directory:
	.skip 4096
stack:
	.skip 65536
stack_end:

# A text whose line table is known to the byte. Made into demo.elf by:
#   cc -c -Wa,--gdwarf-5 -o demo.o demo.s &&
#   cc -nostdlib -static -no-pie -Wl,-e,vfs_write -Wl,-Ttext=0x401000 -Wl,--defsym=_text=0x401000 \
#      -Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567 -o demo.elf demo.o
	.file 0 "/src/linux" "fs/read_write.c"
	.file 1 "fs/read_write.c"
	.file 2 "include/linux/fs.h"
	.file 3 "../generated/autoconf.h"
	.file 4 "/usr/include/stdint.h"
	.text
	.globl vfs_write
vfs_write:			# 0x401000
	.loc 1 681
	nop
	.loc 2 70
	nop
	.loc 1 690		# two rows at one address: the second counts
	.loc 1 691
	nop
	.loc 3 5
	nop
	.loc 4 9
	nop
	.loc 1 700
	ret
	.section .init.text, "ax"
	.globl start_kernel
start_kernel:
	.loc 2 71
	nop
	ret
	.section .debug_info, "", @progbits
	.long 1f - 0f		# one unit, all its text in ranges of its own
0:	.value 5
	.byte 1, 8
	.long .debug_abbrev
	.byte 1
	.long 0
	.long .Lranges
	.asciz "/src/linux"
1:
	.section .debug_abbrev, "", @progbits
	.byte 1, 0x11, 0
	.byte 0x10, 0x17, 0x55, 0x17, 0x1b, 0x08, 0, 0, 0
	.section .debug_line, "", @progbits
	.section .debug_rnglists, "", @progbits
	.long 3f - 2f
2:	.value 5
	.byte 8, 0
	.long 0
.Lranges:
	.byte 7
	.quad vfs_write
	.byte 7
	.byte 7
	.quad start_kernel
	.byte 2
	.byte 0
3:

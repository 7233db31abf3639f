// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Which build of the kernel or of a module this is, and where the kernel is.
 *
 * The kernel says so in the note that it leaves for a crash kernel (VMCOREINFO), which is a text
 * with a fact a line; that needs no symbol that is not exported.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/elf.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
#include <linux/vmcore_info.h>
#else
#include <linux/crash_core.h>
#endif

#include "shim.h"

#if defined(CONFIG_X86_64)
#define MACHINE	EM_X86_64
#elif defined(CONFIG_ARM64)
#define MACHINE	EM_AARCH64
#else
#error "lineinfo runs on x86-64 and arm64"
#endif

/* The value of a fact, which ends with the line; NULL if it is not there. */
static const char *find_fact(const char *text, size_t size, const char *name, size_t *len)
{
	const char *end = text + size;
	size_t name_len = strlen(name);

	while (text < end) {
		const char *line_end = memchr(text, '\n', end - text);

		if (!line_end)
			line_end = end;
		if (line_end - text > name_len && !memcmp(text, name, name_len)) {
			*len = line_end - text - name_len;
			return text + name_len;
		}
		text = line_end + 1;
	}
	return NULL;
}

int lineinfo_identify_kernel(struct lineinfo_expected *expected)
{
	const struct elf_note *note = phys_to_virt(paddr_vmcoreinfo_note());
	const char *text = (const char *)(note + 1) + ALIGN(note->n_namesz, 4);
	const char *fact;
	char number[20];
	size_t len;
	u64 offset;

	fact = find_fact(text, note->n_descsz, "BUILD-ID=", &len);
	if (!fact || len % 2 || len > 2 * LINEINFO_BUILD_ID_MAX ||
	    hex2bin(expected->build_id, fact, len / 2)) {
		pr_err("this kernel does not say its build-id in vmcoreinfo; build it with --build-id\n");
		return -ENODEV;
	}
	expected->build_id_len = len / 2;
	expected->machine = MACHINE;

	fact = find_fact(text, note->n_descsz, "KERNELOFFSET=", &len);
	if (fact && len < sizeof(number)) {
		memcpy(number, fact, len);
		number[len] = 0;
		if (!kstrtou64(number, 16, &offset)) {
			expected->slide = offset;
			return 0;
		}
	}
	pr_err("this kernel does not say its KERNELOFFSET in vmcoreinfo; it is unknown where its text is\n");
	return -ENODEV;
}

/* Looks for the note with the build-id in the read-only data of a module. */
void lineinfo_find_build_id(const void *from, size_t size, struct lineinfo_expected *expected)
{
	const u8 *start = from;
	size_t at;

	expected->machine = MACHINE;
	expected->build_id_len = 0;
	for (at = 0; at + 16 <= size; at += 4) {
		struct elf_note note;

		memcpy(&note, start + at, sizeof(note));
		/* NT_GNU_BUILD_ID, which user space alone has a name for. */
		if (note.n_namesz != 4 || note.n_type != 3 || memcmp(start + at + 12, "GNU", 4))
			continue;
		if (!note.n_descsz || note.n_descsz > LINEINFO_BUILD_ID_MAX ||
		    note.n_descsz > size - at - 16)
			continue;
		memcpy(expected->build_id, start + at + 16, note.n_descsz);
		expected->build_id_len = note.n_descsz;
		return;
	}
}

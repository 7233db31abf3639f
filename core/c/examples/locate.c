/* Prints the locations of addresses, from a blob or from a boot image that carries one, each after the
 * functions that are inlined there.
 *
 *     cc -no-pie -Wl,--gc-sections -I core/c/include core/c/examples/locate.c liblineinfo_c.a -o locate
 *     ./locate vmlinuz 0xffffffff81000140 ...
 *
 * The library is that of core/c/src/lib.rs, for kernels, which are no position-independent executables.
 * Addresses are return addresses as a stack trace has them, in hexadecimal, without a slide. It has no
 * device, so the linker drops what would need memory, a clock and a log of a kernel.
 */
#include <inttypes.h>
#include <lineinfo.h>
#include <stdio.h>
#include <stdlib.h>

/* Called by lineinfo_footer_find(). */
int lineinfo_port_read(void *file, uint64_t offset, void *to, size_t size)
{
	return fseek(file, (long)offset, SEEK_SET) || fread(to, 1, size, file) != size;
}

int main(int argc, char **argv)
{
	char reason[LINEINFO_REASON_BYTES];
	uint8_t page[4096];
	struct lineinfo_footer footer;
	struct lineinfo_table table;
	struct lineinfo_facts facts;
	uint64_t start = 0, size;
	size_t blob_start = 0;
	uint8_t *bytes;
	FILE *file;
	int error;

	if (argc < 2) {
		fprintf(stderr, "usage: %s BLOB|IMAGE ADDRESS...\n", argv[0]);
		return 2;
	}
	file = fopen(argv[1], "rb");
	if (!file || fseek(file, 0, SEEK_END)) {
		perror(argv[1]);
		return 1;
	}
	size = (uint64_t)ftell(file);

	error = lineinfo_footer_find(file, size, page, sizeof(page), &footer, reason, sizeof(reason));
	if (error > 0) {
		start = footer.image_len;
		size = footer.payload_size;
	}
	bytes = malloc(size ? size : 1);
	if (!bytes || lineinfo_port_read(file, start, bytes, size)) {
		perror(argv[1]);
		return 1;
	}
	if (error > 0)
		error = lineinfo_footer_blob(&footer, bytes, size, &blob_start, reason, sizeof(reason));
	if (!error)
		error = lineinfo_parse(&table, bytes + blob_start, size - blob_start, reason,
				       sizeof(reason));
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[1], reason);
		return 4;
	}

	lineinfo_facts(&table, &facts);
	for (int at = 2; at < argc; at++) {
		uint64_t address = strtoull(argv[at], NULL, 16);
		char text[256];

		for (uint32_t level = 0;
		     lineinfo_inlined_text(&table, facts.text_start, LINEINFO_ADDRESS_RETURN,
					   address, level, text, sizeof(text));
		     level++)
			printf("%s\n", text);
		if (!lineinfo_physical_text(&table, facts.text_start, LINEINFO_ADDRESS_RETURN,
					    address, text, sizeof(text)))
			lineinfo_text(&table, facts.text_start, LINEINFO_ADDRESS_RETURN, address,
				      text, sizeof(text));
		printf("0x%" PRIx64 "%s\n", address, text);
	}
	return 0;
}

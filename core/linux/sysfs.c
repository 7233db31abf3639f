// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * /sys/kernel/lineinfo/: what the slot of the kernel holds, how many modules have a table, and
 * whether traces have lines for inlined functions.
 */
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/string.h>
#include <linux/string_helpers.h>
#include <linux/sysfs.h>

#include "shim.h"

static struct kobject *directory;

/* The value of a line of the status that has the name of the attribute. */
static ssize_t status_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	const struct lineinfo_caller nobody = {};
	const char *name = attr->attr.name;
	char text[LINEINFO_STATUS_TEXT_MAX + 1];
	char *rest = text, *line;
	struct lineinfo_status status;
	struct lineinfo_file file;
	int ret;

	mutex_lock(&lineinfo_lock);
	ret = lineinfo_device_open(&lineinfo_user_device, &nobody, 0, &file);
	if (!ret) {
		ret = lineinfo_device_status(&lineinfo_user_device, &file, &status);
		lineinfo_device_close(&lineinfo_user_device, &file);
	}
	mutex_unlock(&lineinfo_lock);
	if (ret)
		return ret;
	lineinfo_status_text(&status, text, sizeof(text));
	while ((line = strsep(&rest, "\n"))) {
		char *value = strstr(line, ": ");

		if (!value)
			continue;
		*value = 0;
		if (!strcmp(line, name))
			return sysfs_emit(buf, "%s\n", value + 2);
	}
	return sysfs_emit(buf, "none\n");
}

static ssize_t lookups_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%zu\n", lineinfo_slot_lookups(&lineinfo_kernel.slot));
}

static ssize_t misses_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%zu\n", lineinfo_slot_misses(&lineinfo_kernel.slot));
}

static ssize_t module_tables_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	unsigned int tables;
	u64 memory;

	lineinfo_module_tables(&tables, &memory);
	return sysfs_emit(buf, "%u\n", tables);
}

static ssize_t module_memory_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	unsigned int tables;
	u64 memory;

	lineinfo_module_tables(&tables, &memory);
	return sysfs_emit(buf, "%llu\n", memory);
}

static ssize_t inlines_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", str_on_off(READ_ONCE(lineinfo_inlines)));
}

static ssize_t inlines_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf,
			     size_t count)
{
	bool inlines;
	int ret = kstrtobool(buf, &inlines);

	if (ret)
		return ret;
	WRITE_ONCE(lineinfo_inlines, inlines);
	return count;
}

#define STATUS_ATTR(name) \
	static struct kobj_attribute name##_attr = __ATTR(name, 0444, status_show, NULL)

STATUS_ATTR(state);
STATUS_ATTR(encoding);
STATUS_ATTR(profile);
STATUS_ATTR(build_id);
STATUS_ATTR(entries);
STATUS_ATTR(bytes);
STATUS_ATTR(memory);
STATUS_ATTR(last_error);
static struct kobj_attribute lookups_attr = __ATTR_RO(lookups);
static struct kobj_attribute misses_attr = __ATTR_RO(misses);
static struct kobj_attribute inlines_attr = __ATTR_RW(inlines);
static struct kobj_attribute module_tables_attr = __ATTR_RO(module_tables);
static struct kobj_attribute module_memory_attr = __ATTR_RO(module_memory);

static const struct attribute *attributes[] = {
	&state_attr.attr,
	&encoding_attr.attr,
	&profile_attr.attr,
	&build_id_attr.attr,
	&entries_attr.attr,
	&bytes_attr.attr,
	&memory_attr.attr,
	&last_error_attr.attr,
	&lookups_attr.attr,
	&misses_attr.attr,
	&inlines_attr.attr,
	&module_tables_attr.attr,
	&module_memory_attr.attr,
	NULL
};

int lineinfo_sysfs_init(void)
{
	int ret;

	directory = kobject_create_and_add("lineinfo", kernel_kobj);
	if (!directory)
		return -ENOMEM;
	ret = sysfs_create_files(directory, attributes);
	if (ret)
		kobject_put(directory);
	return ret;
}

void lineinfo_sysfs_exit(void)
{
	kobject_put(directory);
}

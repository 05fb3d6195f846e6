/* Included by elfutils, used by nothing in libelf. */

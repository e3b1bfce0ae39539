/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Whether bytes are surely the whole head of an HTTP/1.1 request (RFC 9112 sections 2.1 and 5), and where its body ends.
 *
 * In: a message whose first bytes lie in one piece. Out: struct reading. Strict: obsolete folding, control characters, a bare
 * LF, blanks before a colon, a second Content-Length and the like are refused, because two readers could read them in two ways.
 */
#ifndef SPANTAP_PROPAGATE_HEAD_H
#define SPANTAP_PROPAGATE_HEAD_H

/* A head is read so far at most; a longer one is left alone. */
#define REQUEST_HEAD_MAX 8192
#define METHOD_MAX 20
/* Content-Length from here on is not followed: sequence numbers have 32 bits. */
#define LENGTH_MAX (1ULL << 30)

enum reading_state {
	READ_METHOD = 0,
	READ_TARGET,
	READ_VERSION,
	READ_LINE,
	READ_NAME,
	READ_VALUE,
	READ_LENGTH,
	READ_DONE,
	READ_REFUSED,
};

/* What a head says, in the state of its socket: the verifier of 6.1 believes in constants that a callback changes on the stack. */
struct reading {
	__u32 position;
	__u32 limit;
	__u32 at;            /* where the target begins, then where fields do */
	__u32 state;
	__u64 first;         /* first 8 bytes of a name, in lower case; each pushes the others up */
	__u64 second;        /* next 8 */
	__u32 name_length;
	__u32 digits;
	__u64 length;        /* Content-Length */
	__u8 has_length;
	__u8 has_context;    /* traceparent */
	__u8 endless;        /* where it ends is not told by its length */
	__u8 tunnel;         /* CONNECT */
	__u32 pad;
};

struct reader {
	struct sk_msg_md *message;
	struct reading *reading;
};

#define NAME1(a) ((__u64)(a))
#define NAME2(a, b) (NAME1(a) << 8 | (b))
#define NAME3(a, b, c) (NAME2(a, b) << 8 | (c))
#define NAME4(a, b, c, d) (NAME3(a, b, c) << 8 | (d))
#define NAME6(a, b, c, d, e, f) (NAME4(a, b, c, d) << 16 | NAME2(e, f))
#define NAME7(a, b, c, d, e, f, g) (NAME4(a, b, c, d) << 24 | NAME3(e, f, g))
#define NAME8(a, b, c, d, e, f, g, h) (NAME4(a, b, c, d) << 32 | NAME4(e, f, g, h))

/* Any of eight bytes below `low` (0x80 and above count as not below). */
static __always_inline bool any_below(__u64 word, __u8 low)
{
	return ((word - 0x0101010101010101ULL * low) & ~word & 0x8080808080808080ULL) != 0;
}

/* A character of a token (RFC 9110 section 5.6.2). */
static __always_inline bool is_token(__u8 c)
{
	const __u64 low = 0x03ff6cfa00000000ULL;  /* ! # $ % & ' * + - . 0-9 */
	const __u64 high = 0x57ffffffc7fffffeULL; /* A-Z ^ _ ` a-z | ~ */

	if (c & 0x80)
		return false;
	return ((c & 0x40 ? high : low) >> (c & 63)) & 1;
}

static __always_inline void begin_name(struct reading *reading)
{
	reading->first = 0;
	reading->second = 0;
	reading->name_length = 0;
}

static __always_inline void push_name(struct reading *reading, __u8 c)
{
	if (c >= 'A' && c <= 'Z')
		c |= 0x20;
	if (reading->name_length < 8)
		reading->first = reading->first << 8 | c;
	else if (reading->name_length < 16)
		reading->second = reading->second << 8 | c;
	reading->name_length++;
}

/* What follows the name of a field. */
static __always_inline __u32 after_name(struct reading *reading)
{
	__u64 first = reading->first, second = reading->second;

	switch (reading->name_length) {
	case 11:
		if (first == NAME8('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r') && second == NAME3('e', 'n', 't'))
			reading->has_context = 1;
		break;
	case 14:
		if (first == NAME8('c', 'o', 'n', 't', 'e', 'n', 't', '-') && second == NAME6('l', 'e', 'n', 'g', 't', 'h')) {
			if (reading->has_length)
				return READ_REFUSED;
			reading->has_length = 1;
			reading->digits = 0;
			return READ_LENGTH;
		}
		break;
	case 17:
		if (first == NAME8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
		    second == NAME8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n'))
			reading->endless = 1;
		break;
	case 7:
		if (first == NAME7('u', 'p', 'g', 'r', 'a', 'd', 'e'))
			reading->endless = 1;
		break;
	case 6:
		if (first == NAME6('e', 'x', 'p', 'e', 'c', 't'))
			reading->endless = 1;
		break;
	}
	return READ_VALUE;
}

/* Whether CR LF stands at the place; 0: not yet known, -1: no. */
static __always_inline int line_end(const __u8 *place, const void *end)
{
	if ((const void *)(place + 2) > end)
		return 0;
	return place[1] == '\n' ? 1 : -1;
}

/* Reads on by one byte, or by eight where none of them means anything. Returns 1 when it is over. */
static long read_on(__u32 index, struct reader *reader)
{
	struct sk_msg_md *message = reader->message;
	struct reading *reading = reader->reading;
	const void *data = (const void *)(long)message->data, *end = (const void *)(long)message->data_end;
	__u64 position = reading->position;
	__u32 state = reading->state;
	const __u8 *place;
	int ends;
	__u8 c;

	if (position >= REQUEST_HEAD_MAX)
		return 1;
	place = data + position;
	if ((const void *)(place + 1) > end)
		return 1;
	if ((state == READ_VALUE || state == READ_TARGET) && (const void *)(place + 8) <= end) {
		__u64 word = *(const __u64 *)place;

		if (state == READ_VALUE ? !any_below(word, 0x20) :
		    !any_below(word, 0x21) && !(word & 0x8080808080808080ULL)) {
			reading->position = position + 8;
			return 0;
		}
	}
	c = *place;
	reading->position = position + 1;
	switch (state) {
	case READ_METHOD:
		if (c == ' ' && reading->name_length) {
			reading->tunnel = reading->name_length == 7 && reading->first == NAME7('c', 'o', 'n', 'n', 'e', 'c', 't');
			reading->state = READ_TARGET;
			reading->at = position + 1;
			return 0;
		}
		if ((c >= 'A' && c <= 'Z') || c == '-') {
			if (reading->name_length >= METHOD_MAX)
				break;
			push_name(reading, c);
			return 0;
		}
		break;
	case READ_TARGET:
		if (c == ' ' && position > reading->at) {
			reading->state = READ_VERSION;
			return 0;
		}
		if (c > 0x20 && c < 0x7f)
			return 0;
		break;
	case READ_VERSION:
		if ((const void *)(place + 10) > end) {
			reading->position = position;
			return 1;
		}
		/* "HTTP/1.1", as it lies in memory. */
		if (*(const __u64 *)place == 0x312e312f50545448ULL && place[8] == '\r' && place[9] == '\n') {
			reading->position = position + 10;
			reading->at = position + 10;
			reading->state = READ_LINE;
			return 0;
		}
		break;
	case READ_LINE:
		if (c == '\r') {
			ends = line_end(place, end);
			if (!ends)
				return 1;
			if (ends < 0)
				break;
			reading->position = position + 2;
			reading->state = READ_DONE;
			return 1;
		}
		if (!is_token(c))
			break;
		begin_name(reading);
		push_name(reading, c);
		reading->state = READ_NAME;
		return 0;
	case READ_NAME:
		if (c == ':') {
			reading->state = after_name(reading);
			return reading->state == READ_REFUSED;
		}
		if (!is_token(c))
			break;
		push_name(reading, c);
		return 0;
	case READ_LENGTH:
		if (c >= '0' && c <= '9' && reading->digits < 16) {
			reading->length = reading->length * 10 + (c - '0');
			reading->digits++;
			return 0;
		}
		if ((c == ' ' || c == '\t') && !reading->digits)
			return 0;
		if (c != '\r' || !reading->digits)
			break;
		/* Fallthrough: the line has to end here. */
	case READ_VALUE:
		if (c == '\r') {
			ends = line_end(place, end);
			if (!ends)
				return 1;
			if (ends < 0)
				break;
			reading->position = position + 2;
			reading->state = READ_LINE;
			return 0;
		}
		if (c >= 0x20 || c == '\t')
			return 0;
		break;
	}
	reading->state = READ_REFUSED;
	return 1;
}

#endif

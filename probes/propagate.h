/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What the object that puts `traceparent` into requests (propagate.bpf.c) and the socket hooks (propagated.h) tell each other.
 *
 * In: nothing. Out: the record of a request that has been given a field, by address of its socket.
 */
#ifndef SPANTAP_PROPAGATE_H
#define SPANTAP_PROPAGATE_H

/* "traceparent: 00-" trace id "-" span id "-01\r\n" (W3C Trace Context, section 3.2). */
#define FIELD_BYTES 70

/* A request of which the send is under way. */
struct propagated {
	__u32 sequence;  /* TCP sequence number of the request's first byte */
	__u32 at;        /* bytes of the request before the field */
	__u8 text[FIELD_BYTES];
	__u8 pad[2];
};

/* As many as sends can be under way with a field; without room a request is left as it is. */
#define PROPAGATED_MAX 16384

#endif

"""libcurl with GnuTLS by its C functions. In: "1.1" or "2", URLs. Asks all of them on one connection."""
import ctypes, sys

curl = ctypes.CDLL("libcurl-gnutls.so.4")
curl.curl_easy_init.restype = ctypes.c_void_p
curl.curl_version.restype = ctypes.c_char_p
if b"GnuTLS" not in curl.curl_version():
    sys.exit("this is not the build with GnuTLS")
easy = ctypes.c_void_p(curl.curl_easy_init())
URL, VERIFY_PEER, VERIFY_HOST, HTTP_VERSION, WRITE = 10002, 64, 81, 84, 20011
take = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)(lambda _d, one, count, _u: one * count)
curl.curl_easy_setopt(easy, VERIFY_PEER, ctypes.c_long(0))
curl.curl_easy_setopt(easy, VERIFY_HOST, ctypes.c_long(0))
curl.curl_easy_setopt(easy, HTTP_VERSION, ctypes.c_long(2 if sys.argv[1] == "1.1" else 3))
curl.curl_easy_setopt(easy, WRITE, take)
for url in sys.argv[2:]:
    curl.curl_easy_setopt(easy, URL, ctypes.c_char_p(url.encode()))
    if (result := curl.curl_easy_perform(easy)) != 0:
        sys.exit(f"curl: {result}")

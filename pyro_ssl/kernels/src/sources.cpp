// Which sources a library was built from: what calls it has to be of the same.

extern "C" const char *sources_digest() { return SOURCES_DIGEST; }

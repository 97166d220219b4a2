package expr

// PlaceholderEnd is the index of the }} that ends the placeholder whose inside
// begins at i, or the length of s where nothing ends it. A }} within quotes does
// not count.
func PlaceholderEnd(s string, i int) int {
	quote := byte(0)
	for ; i < len(s); i++ {
		switch b := s[i]; {
		case quote != 0 && b == '\\':
			i++
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '\'' || b == '"':
			quote = b
		case b == '}' && i+1 < len(s) && s[i+1] == '}':
			return i
		}
	}
	return len(s)
}

package story

import "debug/elf"

// stripped says whether a program has no debug information.
func stripped(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(".debug_info") == nil && f.Section(".zdebug_info") == nil
}

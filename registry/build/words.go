package build

import (
	"strings"
)

// keyValues reads NAME=value pairs with quotes and backslashes, or the old
// form "NAME the rest is the value".
func keyValues(line int, instruction, text string) ([][2]string, error) {
	words, err := splitWords(line, text)
	if err != nil {
		return nil, err
	}
	if len(words) > 0 && !strings.Contains(words[0], "=") {
		name, value, ok := strings.Cut(text, " ")
		if !ok {
			return nil, syntax(line, "%s: want NAME=value, got %q", instruction, text)
		}
		return [][2]string{{name, strings.TrimSpace(value)}}, nil
	}
	var pairs [][2]string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, syntax(line, "%s: want NAME=value, got %q", instruction, w)
		}
		pairs = append(pairs, [2]string{name, value})
	}
	return pairs, nil
}

// splitWords splits at blanks outside of quotes, and removes the quotes.
func splitWords(line int, text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, syntax(line, "a quote %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

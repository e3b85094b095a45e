// Answers what is left of a tree by an ignore file, with Moby's own matcher: a case a line on standard input, an answer a
// line on standard output (see ../corpus/ignore/README.md). `make fuzz-moby` builds it with Debian's Go and its package of
// Moby's patternmatcher. Reading the lines of the file and walking the tree are written again here, by the documentation of
// Moby's ignorefile and fsutil; the recorded answers in ../corpus/ignore come from the originals.
package main

import (
	"bufio"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/patternmatcher"
)

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		answer, err := answer(unescape(words[0]), words[1:])
		if err != nil {
			answer = "error"
		}
		fmt.Fprintln(out, answer)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// directory is one that the walk is in.
type directory struct {
	path   string
	index  int
	info   patternmatcher.MatchInfo
	pruned bool
}

func answer(ignore string, entries []string) (string, error) {
	matcher, err := patternmatcher.New(readLines(ignore))
	if err != nil {
		return "", err
	}
	kept := new(big.Int)
	var parents []directory
	for index, entry := range entries {
		path := unescape(strings.TrimRight(entry, "/>"))
		for len(parents) > 0 && !strings.HasPrefix(path, parents[len(parents)-1].path+"/") {
			parents = parents[:len(parents)-1]
		}
		var info patternmatcher.MatchInfo
		if len(parents) > 0 {
			if parents[len(parents)-1].pruned {
				continue
			}
			info = parents[len(parents)-1].info
		}
		matched, info, err := matcher.MatchesUsingParentResults(path, info)
		if err != nil {
			return "", err
		}
		if !matched {
			for _, parent := range parents {
				kept.SetBit(kept, parent.index, 1)
			}
			kept.SetBit(kept, index, 1)
		}
		if strings.HasSuffix(entry, "/") {
			parents = append(parents, directory{path, index, info, matched && prunes(matcher, path)})
		}
	}
	return kept.Text(16), nil
}

// prunes tells whether no exception can take back anything below an excluded directory, by the rule of fsutil's filter.
func prunes(matcher *patternmatcher.PatternMatcher, dir string) bool {
	leads := false
	for _, pattern := range matcher.Patterns() {
		if !pattern.Exclusion() {
			continue
		}
		text := strings.TrimSuffix(strings.TrimSuffix(pattern.String(), "/**"), "/*")
		if strings.ContainsAny(text, `*[]?^\`) {
			return false
		}
		leads = leads || strings.HasPrefix(text+"/", dir+"/")
	}
	return !leads
}

// readLines reads an ignore file.
func readLines(content string) []string {
	var patterns []string
	for _, line := range strings.Split(strings.TrimPrefix(content, "\xef\xbb\xbf"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		pattern := strings.TrimSpace(line)
		if pattern == "" {
			continue
		}
		mark := ""
		if pattern[0] == '!' {
			mark, pattern = "!", strings.TrimSpace(pattern[1:])
		}
		if pattern != "" {
			pattern = filepath.Clean(pattern)
			if len(pattern) > 1 {
				pattern = strings.TrimPrefix(pattern, "/")
			}
		}
		patterns = append(patterns, mark+pattern)
	}
	return patterns
}

func unescape(text string) string {
	var out strings.Builder
	for at := 0; at < len(text); at++ {
		if text[at] != '\\' {
			out.WriteByte(text[at])
			continue
		}
		at++
		switch text[at] {
		case 'n':
			out.WriteByte('\n')
		case 'x':
			code, err := strconv.ParseUint(text[at+1:at+3], 16, 8)
			if err != nil {
				panic(err)
			}
			out.WriteByte(byte(code))
			at += 2
		default:
			out.WriteByte(text[at])
		}
	}
	return out.String()
}

package server

import (
	"path"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxFiles bounds how many files one request brings.
const maxFiles = 10_000

// checkSize refuses a request whose files, or whose rest, are too large.
func (s *Server) checkSize(req proto.Message, files ...map[string][]byte) error {
	size, count := 0, 0
	for _, m := range files {
		count += len(m)
		for name, data := range m {
			size += len(name) + len(data)
		}
	}
	if count > maxFiles {
		return fault(pipeline.TooLarge, "too_many_files", "the request brings %d files; at most %d are allowed", count, maxFiles)
	}
	if size > s.cfg.Limits.Files {
		return fault(pipeline.TooLarge, "files_too_large", "the files are %d bytes; at most %d are allowed", size, s.cfg.Limits.Files)
	}
	if n := proto.Size(req) - size; n > s.cfg.Limits.Request+64*count {
		return fault(pipeline.TooLarge, "request_too_large", "the request is %d bytes without its files; at most %d are allowed", n, s.cfg.Limits.Request)
	}
	return nil
}

// checkPaths refuses files that would stand outside their folder.
func checkPaths(field string, files map[string][]byte) error {
	bad := &refusal{reason: "invalid_path"}
	for name := range files {
		if name == "" || name == "." || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsAny(name, "\\\x00") {
			bad.violations = append(bad.violations, violation{Field: field, Reason: "invalid_path", Text: short(name) + " is not a path within the folder: relative, with slashes and without .."})
		}
		if len(bad.violations) == 50 {
			break
		}
	}
	if bad.violations != nil {
		return bad
	}
	return nil
}

package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func askSQLite(ctx context.Context, file, text string, args []any, most int) (tool.Rows, error) {
	if !filepath.IsAbs(file) {
		return tool.Rows{}, errors.New("the database's URL must name the file by its whole path, as in sqlite:///data/shop.db")
	}
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return tool.Rows{}, errors.New("the database's file cannot be opened")
	}
	if err := single(text); err != nil {
		return tool.Rows{}, err
	}
	text = strings.TrimRight(strings.TrimSpace(text), "; \t\r\n")
	dsn := "file:" + (&url.URL{Path: filepath.ToSlash(file)}).EscapedPath() + "?mode=ro&_pragma=query_only(1)&_pragma=trusted_schema(0)&_pragma=busy_timeout(5000)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return tool.Rows{}, errors.New("the database's file cannot be opened")
	}
	defer func() { _ = db.Close() }() // nothing was written
	conn, err := db.Conn(ctx)
	if err != nil {
		return tool.Rows{}, errors.New("the database's file cannot be opened")
	}
	defer func() { _ = conn.Close() }()
	for id, limit := range map[int]int{
		sqlite3.SQLITE_LIMIT_ATTACHED: 0, sqlite3.SQLITE_LIMIT_LENGTH: maxBytes, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,
	} {
		if _, err := sqlite.Limit(conn, id, limit); err != nil {
			return tool.Rows{}, fmt.Errorf("bound the database: %w", err)
		}
	}
	values := make([]any, len(args))
	for i, v := range args {
		switch v := v.(type) {
		case []any, map[string]any:
			values[i] = string(pipeline.EncodeValue(v))
		default:
			values[i] = v
		}
	}
	// What stands in parentheses can be nothing but a query.
	found, err := conn.QueryContext(ctx, "SELECT * FROM (\n"+text+"\n)", values...) //nolint:gosec // the query is what is asked for
	if err != nil {
		return tool.Rows{}, said(err)
	}
	defer func() { _ = found.Close() }()
	var rows tool.Rows
	if rows.Columns, err = found.Columns(); err != nil {
		return tool.Rows{}, said(err)
	}
	size := 0
	for found.Next() {
		row := make([]any, len(rows.Columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := found.Scan(into...); err != nil {
			return tool.Rows{}, said(err)
		}
		bytes := 0
		for i := range row {
			bytes += plain(&row[i])
		}
		if !fill(&rows, &size, row, bytes, most) {
			break
		}
	}
	if err := found.Err(); err != nil {
		return tool.Rows{}, said(err)
	}
	return rows, nil
}

// plain makes a JSON value of what the driver gives, and tells about how large it is.
func plain(v *any) int {
	switch x := (*v).(type) {
	case []byte:
		if utf8.Valid(x) {
			*v = string(x)
		} else {
			*v = fmt.Sprintf("\\x%x", x)
		}
		return len(x)
	case string:
		if !utf8.ValidString(x) {
			*v = strings.ToValidUTF8(x, "\ufffd")
		}
		return len(x)
	case time.Time:
		*v = x.Format(time.RFC3339Nano)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			*v = fmt.Sprint(x)
		}
	}
	return 8
}

// said is what SQLite says about a query.
func said(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "too big"):
		return errTooLarge
	case strings.Contains(text, "syntax error"):
		text += "; this tool takes one SELECT, WITH or VALUES"
	case strings.Contains(text, "readonly"):
		text += "; this tool only reads"
	}
	return errors.New("the database says: " + text)
}

// single refuses a text of more than one statement: the driver would run them all.
func single(text string) error {
	end := -1 // of the first statement
	for i := 0; i < len(text); {
		n := 1
		switch c := text[i]; {
		case c == '\'' || c == '"' || c == '`':
			n = quoted(text[i:], c)
		case c == '[':
			n = quoted(text[i:], ']')
		case strings.HasPrefix(text[i:], "--"):
			if n = strings.IndexByte(text[i:], '\n'); n < 0 {
				n = len(text) - i
			}
		case strings.HasPrefix(text[i:], "/*"):
			if n = strings.Index(text[i+2:], "*/"); n < 0 {
				return errors.New("a comment of the query does not end")
			}
			n += 4
		case c == 0:
			return errors.New("the query holds a NUL character")
		case c == ';' && end < 0:
			end = i
		case end >= 0 && c != ';' && c != ' ' && c != '\t' && c != '\n' && c != '\r':
			return errors.New("this tool takes one statement at a time")
		}
		if end >= 0 && n > 1 {
			return errors.New("this tool takes one statement at a time")
		}
		if n == 0 {
			return errors.New("a quote of the query does not end")
		}
		i += n
	}
	return nil
}

// quoted is the length of what stands in quotes, in which two of them are one; 0:
// it does not end.
func quoted(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			continue
		}
		if quote != ']' && i+1 < len(s) && s[i+1] == quote {
			i++
			continue
		}
		return i + 1
	}
	return 0
}

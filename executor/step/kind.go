package step

import (
	"strings"
	"time"
)

// The kinds of a column.
const (
	kindEmpty   = "empty" // it has only null
	kindInteger = "integer"
	kindNumber  = "number"
	kindBoolean = "boolean"
	kindDate    = "date" // texts, all of them dates or times in the order year, month, day
	kindText    = "text"
	kindList    = "list"
	kindMap     = "map"
	kindMixed   = "mixed"
)

// kindOfColumn is what all values of a column that are not null have in common.
// Integers among numbers count as numbers.
func kindOfColumn(rows []map[string]any, column string) string {
	kind := kindEmpty
	for _, r := range rows {
		k := kindOfCell(r[column], kind != kindText)
		switch {
		case k == kindEmpty || k == kind:
		case kind == kindEmpty:
			kind = k
		case numeric(kind) && numeric(k):
			kind = kindNumber
		case textual(kind) && textual(k):
			kind = kindText
		default:
			return kindMixed
		}
	}
	return kind
}

func kindOfCell(v any, dates bool) string {
	switch v := v.(type) {
	case int64:
		return kindInteger
	case float64:
		return kindNumber
	case bool:
		return kindBoolean
	case []any:
		return kindList
	case map[string]any:
		return kindMap
	case string:
		if dates {
			if _, ok := parseDate(v); ok {
				return kindDate
			}
		}
		return kindText
	}
	return kindEmpty
}

func numeric(kind string) bool { return kind == kindInteger || kind == kindNumber }
func textual(kind string) bool { return kind == kindText || kind == kindDate }

var dateLayouts = []string{
	time.DateOnly, "2006-01-02T15:04:05.999999999", time.RFC3339Nano, "2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05.999999999Z07:00", "2006/01/02",
}

// parseDate reads a date or time that begins with a year of four digits. What
// has no zone counts as UTC.
func parseDate(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if len(s) < len("2006-01-02") || len(s) > 40 || s[0] < '0' || s[0] > '9' || s[4] != '-' && s[4] != '/' {
		return time.Time{}, false
	}
	for _, layout := range dateLayouts {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

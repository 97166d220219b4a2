package web

// first drops all but the first of two results, for use in templates.
func first[A, B any](a A, _ B) A { return a }

func second[A, B any](_ A, b B) B { return b }

// icons are outlines on a 16 by 16 grid, drawn with a stroke; see .icon in
// static/app.css. States have one each, so that no meaning hangs on colour.
var icons = map[string]string{
	"queued":    "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5v3h-2.5",
	"pending":   "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11",
	"running":   "M5 3.5v9l7.5-4.5z",
	"waiting":   "M4.5 2.5h7M4.5 13.5h7M5.5 2.5c0 3.5 5 3.5 5 7.5v3.5M10.5 2.5c0 3.5-5 3.5-5 7.5v3.5",
	"paused":    "M5.5 3.5v9M10.5 3.5v9",
	"completed": "M3 8.5l3.5 3.5l6.5-7.5",
	"failed":    "M4 4l8 8M12 4l-8 8",
	"skipped":   "M3.5 4l4 4l-4 4M8.5 4l4 4l-4 4",
	"cancelled": "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M4.2 4.2l7.6 7.6",
	"unknown":   "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 8v.1",
	"search":    "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M10.4 10.4l3.1 3.1",
	"theme":     "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
	"plus":      "M8 3v10M3 8h10",
	"copy":      "M6 6h7v7h-7zM10 6v-3h-7v7h3",
	"close":     "M4 4l8 8M12 4l-8 8",
	"older":     "M6 3.5l4.5 4.5l-4.5 4.5",
	"newer":     "M10 3.5l-4.5 4.5l4.5 4.5",
	"fit":       "M2.5 6v-3.5h3.5M10 2.5h3.5v3.5M13.5 10v3.5h-3.5M6 13.5h-3.5v-3.5",
	"minus":     "M3 8h10",
	"error":     "M4 4l8 8M12 4l-8 8",
	"warning":   "M8 2.5l6 11h-12zM8 6.5v3.5M8 11.8v.1",
	"info":      "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 7.5v3.5M8 5v.1",
	"again":     "M12.5 6a5 5 0 1 0 .3 3.5M12.8 2.8v3.4h-3.4",
}

func iconPath(name string) string {
	if d, ok := icons[name]; ok {
		return d
	}
	return icons["unknown"]
}

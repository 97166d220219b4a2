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
	"action":    "M9 2.5l-5 6.5h4l-1 4.5l5-6.5h-4z",
	"skill":     "M8 2.5l1.6 3.6l3.9.4l-2.9 2.6l.8 3.9l-3.4-2l-3.4 2l.8-3.9l-2.9-2.6l3.9-.4z",
	"command":   "M3 4l4 4l-4 4M8.5 12.5h4.5",
	"agent":     "M3.5 5.5h9v7h-9zM8 5.5v-3M6 8.5v1M10 8.5v1M1.8 8.5v2M14.2 8.5v2",
	"set":       "M3 5.5h10M3 10.5h10",
	"assert":    "M8 2.5l5 2v3.5c0 3-2 5-5 6c-3-1-5-3-5-6v-3.5zM5.8 8l1.6 1.6l3-3.2",
	"wait":      "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5v3l2 1.5",
	"ask":       "M2.5 3h11v8h-6l-3 2.5v-2.5h-2zM6.5 5.8a1.5 1.3 0 1 1 1.5 1.5M8 9v.1",
	"call":      "M2.5 2.5h7v7h-7zM6.5 12v1.5h7v-7h-1.5",
	"parallel":  "M8 2.5v2.5M3.5 13.5v-6a2 2 0 0 1 2-2h5a2 2 0 0 1 2 2v6M8 5.5v8",
	"compete":   "M4.5 2.5h7v4a3.5 3.5 0 0 1-7 0zM4.5 4h-2c0 2 .8 3 2.2 3M11.5 4h2c0 2-.8 3-2.2 3M8 10v3.5M5.5 13.5h5",
	"loop":      "M12.5 6.5a4.8 4.8 0 0 0-9-.8M3.2 3v3h3M3.5 9.5a4.8 4.8 0 0 0 9 .8M12.8 13v-3h-3",
	"branch":    "M8 13.5v-4l-4.5-4v-3M8 9.5l4.5-4v-3M2 4l1.5-1.5l1.5 1.5M11 4l1.5-1.5l1.5 1.5",
	"signal":    "M8 7v6.5M8 5a1 1 0 1 0 0 2a1 1 0 1 0 0-2M4.8 9.2a4.5 4.5 0 0 1 0-6.4M11.2 9.2a4.5 4.5 0 0 0 0-6.4M2.8 11a7 7 0 0 1 0-10M13.2 11a7 7 0 0 0 0-10",
	"files":     "M4 2.5h5l3 3v8h-8zM9 2.5v3h3",
	"download":  "M8 2.5v7.5M4.8 7l3.2 3.2l3.2-3.2M3 13.5h10",
	"plan":      "M3 4h1M6.5 4h6.5M3 8h1M6.5 8h6.5M3 12h1M6.5 12h6.5",
	"again":     "M12.5 6a5 5 0 1 0 .3 3.5M12.8 2.8v3.4h-3.4",
}

func iconPath(name string) string {
	if d, ok := icons[name]; ok {
		return d
	}
	return icons["unknown"]
}

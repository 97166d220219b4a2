package web

import (
	"net/http"
	"time"
)

func (s *site) about(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusOK, page{"About", "about", aboutPage(s.version, time.Now())})
}

package web

import (
	"net/http"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (s *site) storagePage(w http.ResponseWriter, r *http.Request) {
	report, err := s.storage.GetStorage(r.Context(), &api.GetStorageRequest{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"Storage", "about", storageReport(report)})
}

// tableOf is what a day's table takes.
func tableOf(d *api.StorageDay, name string) string {
	for _, t := range d.GetTables() {
		if t.GetName() == name {
			return bytesOf(int64(t.GetBytes()))
		}
	}
	return bytesOf(0)
}

// retentionWords says how long runs are kept.
func retentionWords(days int32) string {
	if days == 0 {
		return "for ever"
	}
	return plural(int(days), "day", "days")
}

package main

import (
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/cassette"
)

// recordings is the provider that answers from a cassette.
func recordings(file string) (model.Provider, error) {
	text, err := readFile("cassette", file)
	if err != nil {
		return nil, err
	}
	p, err := cassette.Parse(file, text)
	if err != nil {
		return nil, unreadable("the cassette "+file+" is not valid", err)
	}
	return p, nil
}

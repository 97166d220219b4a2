package expr

type Template struct{ src string }

func Compile(src string) (*Template, error)             { return &Template{src}, nil }
func CompileCondition(src string) (*Template, error)    { return &Template{src}, nil }
func (t *Template) Source() string                      { return t.src }
func (t *Template) Const() (string, bool)               { return "", false }
func (t *Template) Refs() []Ref                         { return nil }
func (t *Template) Dashes() []Dash                      { return nil }
func (t *Template) Deprecated() []Span                  { return nil }
func (t *Template) Calls() []string                     { return nil }
func (t *Template) Impure() bool                        { return false }
func (t *Template) Eval(env *Env) (any, error)          { return nil, nil }
func (t *Template) EvalString(env *Env) (string, error) { return "", nil }
func (t *Template) Test(env *Env) (bool, error)         { return false, nil }
func Filters() []string                                 { return nil }
func Tests() []string                                   { return nil }
func Functions() []string                               { return nil }
func Text(v any) string                                 { return "" }
func Equal(a, b any) bool                               { return false }
func Truthy(v any) bool                                 { return false }
func Suggest(name string, among []string) string        { return "" }

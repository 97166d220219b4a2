package spec
import ("testing";"fmt";"strings";"syscall";"time")
func cpu() time.Duration { var r syscall.Rusage; syscall.Getrusage(syscall.RUSAGE_SELF,&r); return time.Duration(r.Utime.Nano()+r.Stime.Nano()) }
func TestCPU(t *testing.T){
 for _, n := range []int{1000,10000} {
  var b strings.Builder
  b.WriteString("steps:\n")
  for i:=0;i<n;i++{ fmt.Fprintf(&b,"  - id: s%d\n    action: debug\n    parameters: {url: \"{{ s%d.url }}\", a: 1}\n    dependencies: [s%d]\n",i,max(i-1,0),max(i-2,0)); if i<2 { b.Reset(); b.WriteString("steps:\n  - {id: s0, action: debug}\n  - {id: s1, action: debug}\n")}}
  for name, src := range map[string][]byte{"simple": []byte(b.String()), "rich": large(n)} {
   c:=cpu(); w:=time.Now()
   k:=20000/n
   for range k { if _,_,err:=Compile(Source{Text:src},testCatalog()); err!=nil {t.Fatal(err)} }
   t.Log(name, n, len(src), "cpu", (cpu()-c)/time.Duration(k), "wall", time.Since(w)/time.Duration(k))
   c=cpu(); for range k { parseYAML(string(src)) }
   t.Log("  yaml cpu", (cpu()-c)/time.Duration(k))
  }
 }
}

// Renders a chart as Helm does, with the functions that this chart uses: render CHART VALUES.json NAME VERSION
//
// Helm itself is in no registry at hand; its templates are those of Go with the functions of sprig, and a few of its own.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v2"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

// toYaml writes values as Helm does: without a line break at the end.
func toYaml(value interface{}) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}

func main() {
	chart, name := os.Args[1], os.Args[3]
	var values, about map[string]interface{}
	text, err := os.ReadFile(os.Args[2])
	fail(err)
	fail(json.Unmarshal(text, &values))
	text, err = os.ReadFile(filepath.Join(chart, "Chart.yaml"))
	fail(err)
	var read map[string]interface{}
	fail(yaml.Unmarshal(text, &read))
	about = map[string]interface{}{"Name": read["name"], "Version": read["version"], "AppVersion": read["appVersion"]}

	all := template.New("chart").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	functions["toYaml"] = toYaml
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	all.Funcs(functions)
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	fail(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		fail(err)
		_, err = all.New(filepath.Base(file)).Parse(string(text))
		fail(err)
	}
	version := os.Args[4]
	data := map[string]interface{}{
		"Capabilities": map[string]interface{}{"KubeVersion": map[string]interface{}{"Version": "v" + version}},
		"Values":  values,
		"Chart":   about,
		"Release": map[string]interface{}{"Name": name, "Namespace": "observability", "Service": "Helm"},
	}
	for _, file := range files {
		base := filepath.Base(file)
		if strings.HasPrefix(base, "_") || base == "NOTES.txt" {
			continue
		}
		var out bytes.Buffer
		fail(all.ExecuteTemplate(&out, base, data))
		if strings.TrimSpace(out.String()) != "" {
			fmt.Printf("---\n# %s\n%s\n", base, out.String())
		}
	}
}

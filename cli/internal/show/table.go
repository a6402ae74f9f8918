package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// Tables are those of a status. In JSON they are an object, of lists by the tables' names, of objects by the columns' names.
type Tables []*processv1.Table

// MarshalJSON writes numbers as such, and null where there is none.
func (t Tables) MarshalJSON() ([]byte, error) {
	all := make(map[string][]map[string]any, len(t))
	for _, table := range t {
		rows := make([]map[string]any, 0, len(table.GetRows()))
		for _, row := range table.GetRows() {
			object := make(map[string]any, len(table.GetColumns()))
			for i, column := range table.GetColumns() {
				object[column.GetName()] = value(column, cell(row, i))
			}
			rows = append(rows, object)
		}
		all[table.GetName()] = rows
	}
	return json.Marshal(all)
}

func value(column *processv1.Column, text string) any {
	number := json.Number(text)
	switch _, err := number.Int64(); {
	case !column.GetNumber():
		return text
	case err != nil:
		return nil
	}
	return number
}

// cell is empty if a process left it out.
func cell(row *processv1.Row, i int) string {
	if i >= len(row.GetCells()) {
		return ""
	}
	return row.GetCells()[i]
}

// writeTable writes a headline and a line for each row: words to the left, numbers to the right.
func writeTable(w io.Writer, t *processv1.Table, paint Painter) {
	if len(t.GetRows()) == 0 {
		return
	}
	columns := t.GetColumns()
	headline := &processv1.Row{}
	for _, column := range columns {
		headline.Cells = append(headline.Cells, strings.ToUpper(strings.ReplaceAll(column.GetName(), "_", " ")))
	}
	widths := make([]int, len(columns))
	for _, row := range append([]*processv1.Row{headline}, t.GetRows()...) {
		for i := range columns {
			widths[i] = max(widths[i], utf8.RuneCountInString(Safe(cell(row, i))))
		}
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, paint.Quiet(line(columns, widths, headline)))
	for _, row := range t.GetRows() {
		fmt.Fprintln(w, line(columns, widths, row))
	}
}

func line(columns []*processv1.Column, widths []int, row *processv1.Row) string {
	var out strings.Builder
	for i, column := range columns {
		text := Safe(cell(row, i))
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		if column.GetNumber() {
			text = padding + text
		} else {
			text += padding
		}
		out.WriteString("  " + text)
	}
	return strings.TrimRight(out.String(), " ")
}

"""What leaves a journal for other programs, each format written and read by its field's own library.

sessions: a session counted again, and the names that leave with it; pseudonyms: what stands for them. formats: the
table of formats; a module a format (cells_csv, coco, everything, label_studio, fhir, hl7_messages, dicom: dicom_image
and dicom_cells make its objects of what dicom_object says of both). result: a slide's result as those say it that speak
to laboratories; loinc: its codes; status: what the review makes of it. mllp: how HL7 messages are sent; outbox: what
was sent, and what the receiver said.
"""

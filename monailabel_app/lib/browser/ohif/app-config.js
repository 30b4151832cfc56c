// Settings of the OHIF viewer: the archive through this server, and the RadFound panel.

window.config = {
  routerBasename: "/ohif/",
  extensions: ["/ohif/radfound-extension.js"],
  // A mode of the same id takes the place of MONAI Label's, whose segmentation models this server does not have.
  modes: [{ id: "@ohif/mode-monai-label", modeFactory: () => null }],
  customizationService: {},
  showStudyList: true,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: false,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  useSharedArrayBuffer: "FALSE",
  // OHIF says that it is for investigational use only; a reader confirms it once in 30 days.
  investigationalUseDialog: { option: "configure", days: 30 },
  defaultDataSourceName: "archive",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "archive",
      configuration: {
        friendlyName: "Archive",
        name: "archive",
        wadoUriRoot: "/proxy/dicom/wado",
        qidoRoot: "/proxy/dicom/qido",
        wadoRoot: "/proxy/dicom/wado",
        qidoSupportsIncludeField: true,
        imageRendering: "wadors",
        thumbnailRendering: "wadors",
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        omitQuotationForMultipartRequest: true,
        // The server passes on reading only.
        supportsReject: false,
        dicomUploadEnabled: false,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
